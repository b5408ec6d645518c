"""What a study is: its keys, what makes it refused, and where what it makes lies."""

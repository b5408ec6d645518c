"""Names and numbers that several rooms share, in particular what stages do and what their estimates count (no torch here).

They are no settings: a study cannot change them. Changing one reruns the stages that use it.
"""

# Names of places.
SCRATCH = "scratch"  # stands where an ancestor's name would: random DesNets inherit from nobody
ORIGIN = "origin"  # stands for the ancestor, or its bridge, among the models and teachers of its chain

# Training and distillation.
VALIDATION_ITEMS = 128  # blocks or rows of each data set, scored at each evaluation during training
SAMPLED_OBJECTIVES = ("minillm", "on_policy")  # on completions that are sampled while the student learns
COMPLETION_OBJECTIVES = ("seqkd", *SAMPLED_OBJECTIVES)  # they answer prompts
LOGITS_CHUNK = 2**23  # logits that an objective projects at a time
CACHE_ROWS = 8  # rows of a forward pass for cached teacher log-probabilities, where runtime.micro_batch says nothing

# Scores.
PERPLEXITY_TOKENS = 4096  # of a batch for held-out loss
GENERATION_ROWS = 64  # prompts of a batch whose answers are scored
CONTINUED_TEMPERATURE = 0.8  # of the continuation that is sampled
LIKELIHOOD_ROWS = 32  # (context, choice) pairs of a batch

# Assembly and order.
SEARCH_TOKENS = 8192  # of the validation split, for each candidate of `alpha: search`
SEARCH_ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SEARCH_COMPENSATIONS = (0.0, 0.5, 1.0)
ORDER_ROWS = 8  # blocks of a forward pass of the importance measurement

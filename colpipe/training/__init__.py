"""Objectives and the resumable trainer."""

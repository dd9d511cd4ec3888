"""Plumbing for the lessons: engines, models, exercises. What a lesson teaches stands in its notebook."""

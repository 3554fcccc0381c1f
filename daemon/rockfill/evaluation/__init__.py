"""How good a model is at filling in: tasks whose programs are run, lines of files that are compared, and the scores."""

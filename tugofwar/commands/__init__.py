"""One module per question that ``tugofwar`` is asked; like ``cli.py`` they may reach every room, lazily."""

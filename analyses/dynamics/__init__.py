"""How does interference change during training?"""

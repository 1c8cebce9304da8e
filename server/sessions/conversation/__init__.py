"""What the model has before it: the conversation, how full its window is, and how room is made in it."""

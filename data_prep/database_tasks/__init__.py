"""Database tasks of our own: table families, questions with gold SQL, and a scripted expert."""

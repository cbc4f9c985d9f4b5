"""The faces of other libraries: the examples of their documents, literally, and what they promise."""

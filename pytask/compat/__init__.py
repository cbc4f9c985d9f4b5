"""The words of other libraries over the parts of this one: a module for each, for programs that come from there.

Nothing else of the project imports anything from here. Importing a module of it patches nothing, and connects
nowhere.
"""

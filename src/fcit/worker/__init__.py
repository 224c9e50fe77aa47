"""One process's work: a configuration's data, plan and method (`experiment`), and a base model that
trains and answers with them (`model`).
"""

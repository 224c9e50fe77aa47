"""What the server does with clients' tensors: averages, exact products, robust rules, differential
privacy, and their packed form on the wire.
"""

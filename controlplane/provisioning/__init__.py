"""Making and unmaking instances: operations in stored steps, their runner, and the providers of machines."""

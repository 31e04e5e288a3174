"""Making and unmaking the machines that agents live in."""

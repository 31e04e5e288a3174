"""What the outside is told of instances: routes for the edge, and signed webhooks for other systems."""

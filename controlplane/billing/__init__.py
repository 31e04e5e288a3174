"""Plans, what customers are entitled to, and the scheduler that keeps both in step with the payment provider."""

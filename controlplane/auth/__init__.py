"""Who is calling: passwords, tokens, sessions, API keys, resets and throttling. HTTP and storage are elsewhere."""

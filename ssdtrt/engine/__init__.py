"""How an engine is built and accepted."""

"""Where objectives come from other frameworks; nothing here is imported unasked."""

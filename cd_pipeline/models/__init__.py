"""Network architectures; `build_model` composes one from its settings."""

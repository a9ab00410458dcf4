"""What is known of accelerators and models: data files, number formats, and sizes computed from them."""

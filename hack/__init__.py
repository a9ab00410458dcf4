"""Tools of the workshop that users never need: generators of committed files, builders of third-party test tools."""

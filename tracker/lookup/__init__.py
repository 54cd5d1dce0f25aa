"""Users and items as people and programs see them."""

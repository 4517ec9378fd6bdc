"""A generated shop in the layout of WebShop's own files: products, attributes, instructions, reviews."""

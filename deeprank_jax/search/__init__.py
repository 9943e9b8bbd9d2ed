"""Using a trained model on images: embed, index, search, compare, group."""

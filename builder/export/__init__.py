"""An image to its outputs: archives, layouts, directories, tars."""

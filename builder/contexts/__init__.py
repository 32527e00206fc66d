"""Where files come from: directories, layouts, archives; and checksums of what they hold."""

"""Names, files and arrays come in; a `Dataset` and its splits go out."""

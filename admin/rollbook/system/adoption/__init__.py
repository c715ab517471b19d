"""`rollbook schema adopt`: a Django site's own tables become the portal's, where they are or moved to schema portal."""

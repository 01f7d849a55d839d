"""Board descriptions: data only, one YAML file a board, each fact with its source."""

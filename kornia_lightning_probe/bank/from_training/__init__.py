"""A bank from the pipeline that somebody trains with: what each of its steps does, at growing parts of its range."""

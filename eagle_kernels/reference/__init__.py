"""The ops in plain torch: the specification that every kernel is tested against."""

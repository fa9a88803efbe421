//! An instance that nobody waits for ends, and idle instances yield their place.

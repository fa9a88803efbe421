//! The operator's commands refuse what they cannot do, and change nothing then.

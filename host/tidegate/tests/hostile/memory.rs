//! All memory that clients and guests can make the host hold has one budget.

//! What an instance type can hold.

//! Sends mail: the SMTP client side as a machine without I/O.

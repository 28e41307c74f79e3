//! Takes mail in: the SMTP server side as a machine without I/O.

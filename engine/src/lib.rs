//! The program ringpost: owns the cores, the rings and the clock; carries bytes and events between the boxes.

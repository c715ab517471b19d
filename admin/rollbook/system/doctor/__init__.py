"""What `rollbook doctor` looks for: traps that hold on this installation. One module a subject; all only read."""

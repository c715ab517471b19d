"""What every wing uses: connection, errors, options, output, history, files of rows."""

"""One module per subcommand of ``pslg``; each is imported only when it is called."""

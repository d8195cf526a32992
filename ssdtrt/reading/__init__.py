"""From files, folders and lists to pixels ahead of the network: what is read, by whom, and in what order."""

"""How spans look in a terminal. Everything here turns data into rich renderables; nothing asks or prints."""

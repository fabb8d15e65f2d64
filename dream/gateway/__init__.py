"""The web's side: WebSockets with live events, REST for uploads, pictures by redirect, and the page."""

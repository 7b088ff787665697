"""What every listener and every answer needs, whatever they are about: sockets, bodies, parameters, errors as JSON."""

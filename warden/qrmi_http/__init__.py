"""The HTTP edge: what QRMI's own clients (`pasqal-local`) speak, translated to the broker's protocol.

    routes    each request of theirs as one of ours, and the answer back
    guard     who asks, and what he may ask for at once, before anything of it is read
    link      many requests at once on one connection to the broker
    server    sockets, and connections that are held up
    handshakes    TLS, before there is a request

An edge decides nothing and keeps nothing: any number of them may serve one broker. FastAPI is imported here alone.
"""

package server

import "golang.org/x/sys/windows"

const (
	errAddressInUse   = windows.WSAEADDRINUSE
	errAddressUnknown = windows.WSAEADDRNOTAVAIL
)

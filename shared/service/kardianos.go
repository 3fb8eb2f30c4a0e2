package service

import "github.com/kardianos/service"

// idle is the program that kardianos/service wants to know when it is only
// used to install: [Run] runs the daemons.
type idle struct{}

// Start implements service.Interface.
func (idle) Start(service.Service) error { return nil }

// Stop implements service.Interface.
func (idle) Stop(service.Service) error { return nil }

package service

import (
	"context"
	"time"

	"golang.org/x/sys/windows/svc"

	"github.com/certctl/certctl/shared/jitter"
)

// stopHint is how long the service manager is told to wait between two signs
// that the service is still stopping.
const stopHint = 25 * time.Second

// handler is one run of the service.
type handler struct {
	ctx     context.Context
	main    func(context.Context, Lifecycle) int
	session *session
	status  int // exit status, for after Execute
}

// Execute implements svc.Handler.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, changes chan<- svc.Status) (serviceSpecific bool, exitCode uint32) {
	changes <- svc.Status{State: svc.StartPending}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	ended := make(chan int, 1)
	go func() { ended <- h.main(ctx, Lifecycle{s: h.session}) }()

	current := svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown}
	changes <- current
	subscribed := h.session.subscribed
	var still <-chan time.Time // while stopping: when to say that it goes on
	for {
		select {
		case h.status = <-ended:
			return h.status != 0, uint32(h.status)
		case <-subscribed:
			subscribed = nil
			if current.State == svc.Running {
				current.Accepts |= svc.AcceptParamChange
				changes <- current
			}
		case <-still:
			current.CheckPoint++
			changes <- current
		case request := <-requests:
			switch request.Cmd {
			case svc.Interrogate:
				changes <- current
			case svc.ParamChange:
				h.session.requestReload()
			case svc.Stop, svc.Shutdown, svc.PreShutdown:
				if current.State == svc.StopPending {
					continue
				}
				current = svc.Status{State: svc.StopPending, CheckPoint: 1, WaitHint: uint32(stopHint.Milliseconds())}
				changes <- current
				signs := jitter.NewJitteredTicker(stopHint/2, jitter.DefaultSchedulerJitter)
				defer signs.Stop() // there is one: a service stops once
				still = signs.C
				h.session.manager.stopping()
				cancel()
			}
		}
	}
}

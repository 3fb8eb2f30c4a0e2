package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
)

// issuerName is what the coordinator calls its account at the slow authority.
const issuerName = "digicert"

// slowCA is an authority at which every order waits for a person.
type slowCA struct {
	*served.Server
	page string // URL on which the person approves
}

// startSlowCA plays DigiCert.
func startSlowCA(ctx context.Context, s *stage) (*slowCA, error) {
	dir := s.path("digicert")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	api, err := served.Listen(ctx, "digicert", dir, "127.0.0.1:0", fakeca.Config{Approval: true})
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		api.Close()
		return nil, err
	}
	page := &http.Server{Handler: api.Fake.Core().Control(), ReadHeaderTimeout: 5 * time.Second}
	serving, stop := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	serve := func(run func() error) {
		if err := run(); err != nil && serving.Err() == nil {
			fmt.Fprintln(os.Stderr, err)
		}
		done <- struct{}{}
	}
	go serve(func() error { return api.Serve(serving) })
	go serve(func() error { return page.Serve(listener) })
	s.onClear(func() {
		stop()
		_ = page.Close()
		<-done
		<-done
	})
	return &slowCA{Server: api, page: "http://" + listener.Addr().String() + "/"}, nil
}

// settings is the issuer's section of the coordinator's file.
func (a *slowCA) settings() string {
	return "issuers:\n  " + issuerName + ":\n" + a.Settings("    ")
}

// approve is what a click on the page does.
func (a *slowCA) approve(ctx context.Context, order string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.page+"approve?id="+order, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the authority does not take the approval: %s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	return err
}

// order is the part of "certctl orders list --output json" that is looked at.
type order struct {
	ID          string `json:"id"`
	Certificate string `json:"certificate"`
	Stage       string `json:"stage"`
	Handle      struct {
		Order string `json:"order"`
	} `json:"handle"`
}

// awaitOrder waits until the only order for a certificate is at a stage.
func (c *cast) awaitOrder(ctx context.Context, certificate, stage string, limit time.Duration) (found order, err error) {
	err = await(ctx, limit, func(ctx context.Context) error {
		out, err := c.call(ctx, c.program("certctl"), "orders", "list", "--ended", "--certificate", certificate, "--output", "json")
		if err != nil {
			return err
		}
		var list struct {
			Items []order `json:"items"`
		}
		if err := json.Unmarshal(out, &list); err != nil {
			return err
		}
		if len(list.Items) != 1 || list.Items[0].Stage != stage {
			return fmt.Errorf("the orders are %s", out)
		}
		found = list.Items[0]
		return nil
	})
	if err != nil {
		return order{}, fmt.Errorf("the order for %s: %w", certificate, err)
	}
	return found, nil
}

// placed sees the order that waits for a person.
func (c *cast) placed(ctx context.Context) (order, error) {
	waiting, err := c.awaitOrder(ctx, "ordered", "needs_person", 40*time.Second)
	if err != nil {
		return order{}, err
	}
	c.saw("the coordinator has ordered %s, and says what it waits for", orderedName)
	if err := c.show(ctx, "at the coordinator", c.program("certctl"), "orders", "list"); err != nil {
		return order{}, err
	}
	return waiting, c.show(ctx, "and the account it was ordered at", c.program("certctl"), "issuers", "list")
}

// approved has the person consent, and sees the certificate in service.
func (c *cast) approved(ctx context.Context, waiting order) error {
	if err := c.slow.approve(ctx, waiting.Handle.Order); err != nil {
		return err
	}
	c.saw("somebody has approved the order %s at %s", waiting.Handle.Order, c.slow.page)
	// The coordinator would find out by itself, within minutes.
	if err := c.show(ctx, "at the coordinator", c.program("certctl"), "orders", "retry", waiting.ID); err != nil {
		return err
	}
	serial, err := c.awaitServed(ctx, "ordered", orderedName, "", 40*time.Second)
	if err != nil {
		return err
	}
	c.saw("the authority issued %s; %s serves it", serial, c.web.Kind)
	if _, err := c.awaitOrder(ctx, "ordered", "delivered", 20*time.Second); err != nil {
		return err
	}
	if placed := len(c.slow.Fake.Core().Ledger(nil)); placed != 1 {
		return fmt.Errorf("the authority has %d orders, and one was to be placed", placed)
	}
	c.saw("it is the only order that the authority ever got")
	if err := c.show(ctx, "at the coordinator", c.program("certctl"), "orders", "list", "--ended"); err != nil {
		return err
	}
	return c.show(ctx, "on the host", c.program("certctl-agent"), "status", "--config", c.agentConfig())
}

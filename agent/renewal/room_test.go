package renewal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
)

// The record of an intent takes little room, and was perhaps written days ago. When
// there is none for the result, but for everything else, the authority hears nothing,
// of a new order and of one that is open, however long that lasts.
func TestNothingIsAskedWithoutRoomForTheResult(t *testing.T) {
	for _, disk := range []struct {
		name string
		err  error
		says []string
	}{
		{"full", fmt.Errorf("room for the result of an order: %w", noSpace), []string{"the disk is full", "room for the result of an order", "free some space"}},
		{"broken", errors.New("input/output error"), []string{"nothing is ordered", "could not be stored", "input/output error", "check the disk"}},
	} {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, an order is open: %t", disk.name, open), func(t *testing.T) {
				w := newWorld(t)
				w.open()
				w.settleDown()
				w.toRenewal()
				phase, asked := store.PhaseKeyWritten, w.ca.heard()
				if open {
					phase = store.PhaseOrderPlaced
					asked++
					w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
						if err := order.Save(json.RawMessage(`{"Number":"` + w.ca.newOrder(order.ID) + `"}`)); err != nil {
							return err
						}
						w.store.hasRoom(disk.err) // it fills up while the authority is at it
						return &issuer.Error{Class: issuer.ClassPending, Committed: true, Err: errors.New("still at it")}
					})
				} else {
					w.store.hasRoom(disk.err)
				}
				w.tick()
				w.ca.interfere(nil)
				w.run(3*time.Hour, 10*time.Minute)
				require.Equal(t, asked, w.ca.heard(), "how often the authority was asked")
				assert.Equal(t, phase, w.record().Phase)
				status, err := w.e.Status()
				require.NoError(t, err)
				require.Len(t, status, 1)
				for _, words := range disk.says {
					assert.Contains(t, status[0].Problem, words)
				}

				w.store.hasRoom(nil)
				w.requireServed(2)
				status, err = w.e.Status()
				require.NoError(t, err)
				assert.Empty(t, status[0].Problem)
			})
		}
	}
}

"""The method inside other trainers: each module needs the package it is named after, and nothing here imports one."""
